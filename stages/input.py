"""input: digest what stages read from outside, file by file.

    python -m stages.input --name mail --output data/inputs/mail.json

Reads the file or folder that inputs.<name> of params.yaml names, whole, when DVC sees that it has changed. Writes the
SHA-256 of each file; the stage settings hands on those that concern a task.
"""

from freshstart import files, inputs, params
from freshstart.doors import arguments, open_door
from freshstart.settings import known


def main() -> None:
    args = arguments(__doc__, "name", output="file for the digests")
    named = params.load().root.inputs
    digests = inputs.listing(args.name, named[known(args.name, named, "input", f"inputs in {params.ROOT_FILE}")])
    files.write_json(args.output, digests)
    print(f"{args.name}: {len(digests):,} files")


if __name__ == "__main__":
    open_door(main)
