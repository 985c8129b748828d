"""Run every command in the ```bash blocks of README.md and docs/*.md.

The first two blocks of the README are not run here, because `.ci/run` runs them. A line with a comment `# needs ...`
(the hub, a GPU, the full-size checkpoint) is not run either. The commands run in the root folder of the repository.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(path: Path, skip: int) -> list[str]:
    """Return the commands of a page after its first `skip` blocks. Comments are dropped, continued lines are joined."""
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
