"""Run every command that README.md and docs/*.md show in ```bash blocks.

The README's first two blocks are left to `.ci/run`. A line that ends in `# needs ...` (the hub, a GPU, the full-size
checkpoint) is left out, as the comment tells the reader. Commands run in the repository's root.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(path: Path, skip: int) -> list[str]:
    """The commands of one page, continued lines joined, comments dropped."""
    blocks = BLOCK.findall(path.read_text(encoding="utf-8"))[skip:]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#") and "# needs " not in line]


def main() -> int:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for command in commands(path, skip=2 if path.name == "README.md" else 0):
            print(f"{path.relative_to(ROOT)}: {command}", flush=True)
            done = subprocess.run(command, shell=True, cwd=ROOT, executable="/bin/bash")
            if done.returncode:
                print(f"failed with exit code {done.returncode}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
