"""Runs on forked ranks that are really killed, damaged and squeezed, and what of them has to be as if nothing was."""
