"""`kindling VERB ...`: look the verb up, run its module. Nothing heavy is imported before that."""

import importlib
import sys

VERBS = {
    "prepare": "any known log format -> one prepared dataset",
    "synthesize": "a realistic log of any size",
    "embed": "vectors of item texts, into a dataset",
    "graph": "which items go together and follow each other, into a dataset",
    "plan": "memory, FLOPs and hours of a run, before anything is spent",
    "train": "train, or resume, on any number of processes",
    "launch": "train on several processes of this machine",
    "export": "a checkpoint of any strategy -> one file of weights",
    "evaluate": "ranking metrics beside the baselines",
    "recommend": "recommendations for all users, some of them, or raw histories",
    "explain": "a page: one user's tokens, their relations, and attention with and without the graph",
}


def usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {what}" for verb, what in VERBS.items()]
    return "usage: kindling VERB ...\n\n" + "\n".join(lines) + "\n\n`kindling VERB --help` says more."


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    verb = arguments[0]
    if verb not in VERBS:
        print(f"kindling: there is no verb '{verb}'; choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    sys.argv = [f"kindling {verb}", *arguments[1:]]
    return int(importlib.import_module(f"launch.{verb}").main())


if __name__ == "__main__":
    sys.exit(main())
