"""code: digest the files whose logic shapes what a door makes, for each door.

    python -m stages.code --output data/code

Writes <door>.json: the SHA-256 of each file of this project that the door imports, at the top or in functions, but for
those that shape no output. So a stage has one dependency in place of twenty: DVC reads and writes the whole dvc.lock
for each stage that runs.
"""

from freshstart import files, imports
from freshstart.doors import arguments, open_door


def main() -> None:
    args = arguments(__doc__, output="folder for the digests")
    output = files.fresh_folder(args.output)
    doors = sorted(path.stem for path in (imports.ROOT / "stages").glob("[a-z]*.py"))
    for door in doors:
        files.write_json(output / f"{door}.json", imports.digests(f"stages.{door}"))
    print(f"{len(doors)} doors")


if __name__ == "__main__":
    open_door(main)
