r"""Train on a GPU available only for minutes at a time, and save the results in small files.

    python docs/measure/quality/gpu_train.py --data PACK --init MODEL --run runs/gpu --out HOME -- \
        --stage tiny-3 --workers 14 --set precision=bfloat16 --set batch=32

runs `emavos train` for --seconds, stops it with SIGTERM, and fills HOME with the current model (in half
precision), log.csv and, if there is room, the checkpoint. Files above --file MiB are split. Repeat the
command to continue the run if RUN still exists. On another machine, `gpu_train.py --join HOME` joins the
parts; continue from the checkpoint, or start a new run from the model.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from emavos.io.whole import replacing
from emavos.models import PRESETS, STCN
from emavos.training import TrainConfig
from emavos.weights.load import load_strictly, save_model

MIB = 2**20
TERMINATED = 143
_PART = re.compile(r"(.+)\.part\d\d")


def train_for(seconds: float, command: Sequence[str], patience: float = 60) -> int:
    """Run a command for at most `seconds`, then send SIGTERM; returns the exit code.

    Raises TimeoutError, after killing the command, if it runs for longer than `patience` seconds after
    SIGTERM.
    """
    with subprocess.Popen(command) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"the run did not save itself within {patience:g} s of SIGTERM") from None


def learned(checkpoint: Path) -> STCN:
    """The model in a checkpoint, with the averaged weights if there are any."""
    with safe_open(checkpoint, "pt") as file:
        preset = TrainConfig.from_json(file.metadata()["config"]).preset
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {key[6:]: x for key, x in tensors.items() if key.startswith("model.")}
    weights |= {key[8:]: x for key, x in tensors.items() if key.startswith("average.")}
    model = STCN(PRESETS[preset])
    load_strictly(model, weights, str(checkpoint))
    return model.eval()


def take_home(run: Path, out: Path, *, file: float = 15.0, room: float = 60.0) -> list[str]:
    """Write the model, the log and, if there is room, the checkpoint of a run; returns the names left out.

    run: folder of the run.
    out: folder to write to.
    file: largest file in MiB; larger files are split.
    room: total size in MiB.
    """
    save_model(learned(run / "checkpoint.safetensors"), out / "model", dtype=torch.float16)
    for name in ("log.csv", "validation.csv"):
        if (run / name).exists():
            shutil.copy(run / name, out / name)
    taken = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    checkpoint = run / "checkpoint.safetensors"
    fits = taken + checkpoint.stat().st_size <= room * MIB
    if fits:
        shutil.copy(checkpoint, out / checkpoint.name)
    for path in sorted(out.rglob("*.safetensors")):
        split(path, round(file * MIB))
    return [] if fits else [checkpoint.name]


def split(path: Path, size: int) -> list[Path]:
    """Split a file above `size` bytes into NAME.part00, NAME.part01, ..., and remove the file."""
    if path.stat().st_size <= size:
        return [path]
    parts: list[Path] = []
    with path.open("rb") as file:
        while block := file.read(size):
            parts.append(path.with_name(f"{path.name}.part{len(parts):02d}"))
            parts[-1].write_bytes(block)
    path.unlink()
    return parts


def join(folder: Path) -> list[Path]:
    """Join the parts of all files below a folder, and remove the parts."""
    names: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*.part??")):
        if found := _PART.fullmatch(path.name):
            names.setdefault(path.with_name(found[1]), []).append(path)
    for whole, parts in names.items():
        with replacing(whole) as partial, partial.open("wb") as file:
            for part in parts:
                file.write(part.read_bytes())
        for part in parts:
            part.unlink()
    return list(names)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="what follows -- goes to `emavos train`"
    )
    parser.add_argument("--data", type=Path, metavar="PACK", help="training data")
    parser.add_argument("--init", metavar="MODEL", help="where the weights come from, if the run is new")
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="folder of the run; it goes on if it is there"
    )
    parser.add_argument("--out", type=Path, metavar="HOME", help="folder for what is to be taken home")
    parser.add_argument("--seconds", type=float, default=530, help="after which the run is stopped (530)")
    parser.add_argument("--file", type=float, default=15, metavar="MIB", help="of the largest file (15)")
    parser.add_argument("--room", type=float, default=60, metavar="MIB", help="of all files (60)")
    parser.add_argument("--join", type=Path, metavar="HOME", help="put parts together again, and no more")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="of `emavos train`")
    args = parser.parse_args(argv)
    if args.join is not None:
        for path in join(args.join):
            print(path)
        return
    if missing := [f"--{name}" for name in ("data", "init", "run", "out") if getattr(args, name) is None]:
        parser.error(f"{', '.join(missing)} missing")
    args.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "emavos", "train", "--data", str(args.data), "--init", args.init]
    code = train_for(args.seconds, [*command, "--out", str(args.run), *args.options])
    if code not in (0, TERMINATED):
        raise SystemExit(code)
    left = take_home(args.run, args.out, file=args.file, room=args.room)
    rest = f"; no room for {', '.join(left)}: begin the next run from the model" if left else ""
    print(f"{'the run is at its end' if code == 0 else 'the run goes on'}: {args.out}{rest}")


if __name__ == "__main__":
    main()
