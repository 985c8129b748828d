"""The command line: read documents, trace a page, list the modes, write a full-size checkpoint without the weights.

    python -m lightseek read page.png doc.pdf notes.txt --mode gundam
    python -m lightseek trace page.png --mode base
    python -m lightseek modes
    python -m lightseek formula --preset deepseek-ocr --out full/

`--help` and bad arguments answer before PyTorch is loaded: whatever needs it is imported inside a function.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from lightseek.commands.arguments import CommandParser, Parser
from lightseek.tools.errors import is_out_of_memory, show_notes_in_one_line
from lightseek.tools.streams import escape_unknown_characters

COMMANDS = (  # each a file in lightseek/commands
    "read",
    "summarize",
    "trace",
    "inspect",
    "modes",
    "formula",
    "prepare",
    "generate",
    "evaluate",
    "report",
    "extract",
    "export",
    "serve",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after one line on stderr about what the user can put right."""
    escape_unknown_characters()
    arguments = parser().parse_args(argv)
    show_notes_in_one_line()
    try:
        code = arguments.run(arguments) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        from lightseek.tools.console import fail

        return fail(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        from lightseek.tools.console import fail

        told = " ".join(str(error).split())
        return fail(ValueError(f"out of memory ({told}): try a smaller --mode, --dtype bfloat16 or --device cpu"))


def parser() -> Parser:
    top = Parser(prog="python -m lightseek", description="DeepSeek-OCR from scratch: read pages, look inside.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command", parser_class=CommandParser)
    for name in COMMANDS:
        import_module(f"lightseek.commands.{name}").add_parser(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
