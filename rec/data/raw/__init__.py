"""Reading logs as others publish them: one file for each family of formats, all of them yielding `Raw` chunks."""
