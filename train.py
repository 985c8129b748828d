"""One training run, or the check before it.

    python train.py --config experiments/nano/summarize.json steps=200
    python train.py --task ocr --overfit
    python train.py --model path/to/DeepSeek-OCR --freeze all-but-decoder-last-2 --dtype bfloat16 --lr 2e-5

`--overfit` trains on a single document until the model writes its target letter for letter: do that first.
"""

import sys
from pathlib import Path

from lightseek.options import RunConfig, parse_run


def main(argv: list[str]) -> int:
    def extra(parser):
        parser.add_argument("--out", type=Path, default=Path("runs/train"), help="the run's folder (runs/train)")
        parser.add_argument("--overfit", action="store_true", help="learn one document by heart, then stop")
        parser.add_argument("--save-model", action="store_true", help="write the trained model to OUT/model")

    settings, arguments = parse_run("train.py", __doc__.split("\n")[0], argv, extra)
    config = RunConfig(**settings)
    from lightseek.screen import fail

    try:
        return run_overfit(config, arguments.out) if arguments.overfit else run_training(config, arguments)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        return fail(error)


def run_training(config: RunConfig, arguments) -> int:
    from lightseek.results import finish, results_table
    from lightseek.screen import console, freeze_table, running
    from lightseek.training import Run

    run = Run(config, arguments.out)
    console.print(freeze_table([vars(count) for count in run.counts], config.freeze))
    with running(f"{config.task} at {run.make.mode.name}") as (on_step, on_eval):
        results = finish(run, run.fit(on_step), on_eval)
    if arguments.save_model:
        run.model.save_pretrained(run.folder / "model")
    console.print(results_table([results], ["tokens", "freeze"]))
    console.print(f"[dim]everything about this run: {run.folder}[/]")
    return 0


def run_overfit(config: RunConfig, out: Path) -> int:
    from lightseek.overfit import overfit, overfit_config
    from lightseek.screen import console, overfitting
    from lightseek.training import Run

    run = Run(overfit_config(config), out)
    with overfitting(config.steps) as on_step:
        outcome = overfit(run, report=on_step)
    console.print(f"[bold]target[/]  {outcome.target}\n[bold]output[/]  {outcome.output}", highlight=False)
    verdict = "[green]learned by heart[/]" if outcome.learned else "[red]not learned[/]"
    console.print(f"{verdict} in {outcome.steps} steps, {outcome.seconds:.0f} s, loss {outcome.loss:.4f}")
    return 0 if outcome.learned else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
