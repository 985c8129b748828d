"""Trains one model, or checks with `--overfit` that it can learn at all.

    python train.py --config experiments/nano/summarize.json steps=200
    python train.py --task ocr --overfit
    python train.py --model path/to/DeepSeek-OCR --freeze all-but-decoder-last-2 --lr 2e-5
    accelerate launch --config_file experiments/accelerate/gpu-fsdp2.yaml train.py --model path/to/DeepSeek-OCR

`--overfit` trains on a single document until the model writes its target letter for letter: do that first.
"""

import sys
from pathlib import Path

from lightseek.commands.arguments import parse_run
from lightseek.training.settings import RunConfig


def main(argv: list[str]) -> int:
    def extra(parser):
        parser.add_argument("--out", type=Path, default=Path("runs/train"), help="the run's folder (runs/train)")
        parser.add_argument("--overfit", action="store_true", help="learn one document by heart, then stop")
        parser.add_argument("--save-model", action="store_true", help="write the trained model to OUT/model")
        parser.add_argument("--push-to-hub", metavar="ID", help="upload OUT/model and its card to this hub repository")

    settings, arguments = parse_run("train.py", __doc__.split("\n")[0], argv, extra)
    from lightseek.tools.console import failing

    with failing():
        config, out = RunConfig(**settings), arguments.out
        if config.quantize and (arguments.save_model or arguments.push_to_hub):
            raise ValueError(
                f"quantize={config.quantize} rounds weights, and --save-model and --push-to-hub need exact ones: "
                "leave out one or the other (OUT/adapter is written in any case, and it fits the exact weights)"
            )
        if arguments.overfit:
            return run_overfit(config, out, arguments.save_model)
        return run_training(config, out, arguments.save_model, arguments.push_to_hub)


def run_training(config: RunConfig, out: Path, save_model: bool, hub_id: str | None) -> int:
    """Train, evaluate and save one model, and return the exit code."""
    from lightseek.commands.progress import encode_pages, freeze_table, running, tell_missing, tell_truncated
    from lightseek.lab.publish import create_repository, upload, write_card
    from lightseek.lab.results import finish, results_table
    from lightseek.tools.console import console, escape
    from lightseek.tools.locks import locked_folder
    from lightseek.training.processes import leave
    from lightseek.training.run import Run
    from lightseek.weights.lora_files import save_trained

    run = Run(config, out)
    if not run.main:  # this process only helps to train; the main one evaluates and saves
        run.encode_pages()
        run.fit()
        leave(run.accelerator)
    with locked_folder(out):
        if hub_id:
            create_repository(hub_id)  # a missing permission shows now, not after the training
        console.print(freeze_table([vars(count) for count in run.counts], config.freeze))
        encode_pages(run)
        with running() as (on_step, on_eval):
            trained = run.fit(on_step)
            run.accelerator.wait_for_everyone()  # after this the other processes end
            run.accelerator.end_training()
            results = finish(run, trained, on_eval)
        save_trained(run.model, out, save_model or bool(hub_id))
        if save_model or hub_id:
            write_card(out / "model", results, hub_id)
    if hub_id:
        console.print(f"[dim]uploaded to {escape(upload(out / 'model', hub_id))}[/]")
    tell_missing(results["missing_glyphs"])
    tell_truncated(results["truncated"])
    console.print(results_table([results], ["mode", "freeze"]))
    console.print(f"[dim]everything about this run: {escape(str(out))}[/]")
    return 0


def run_overfit(config: RunConfig, out: Path, save_model: bool) -> int:
    """Check whether the model can learn one document. Return the exit code: 0 if it can, else 1."""
    from lightseek.commands.progress import overfitting
    from lightseek.tools.console import console, escape
    from lightseek.tools.locks import locked_folder
    from lightseek.training.overfit import overfit, overfit_config, write_results
    from lightseek.training.run import Run
    from lightseek.weights.lora_files import save_trained

    run = Run(overfit_config(config), out)
    with locked_folder(out):
        with overfitting(config.steps) as on_step:
            outcome = overfit(run, report=on_step)
        write_results(run, outcome)
        save_trained(run.model, out, save_model)
    console.print(f"[bold]target[/]  {escape(outcome.target)}\n[bold]output[/]  {escape(outcome.output)}")
    verdict = "[green]learned by heart[/]" if outcome.learned else "[red]not learned[/]"
    console.print(f"{verdict} in {outcome.steps} steps, {outcome.seconds:.0f} s, loss {outcome.loss:.4f}")
    return 0 if outcome.learned else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
