"""`emavos doctor`: check this machine, and explain how to install missing parts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from emavos.cli.arguments import Commands

if TYPE_CHECKING:
    from emavos.doctor import Report


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check this machine and list missing extras",
        description="Show versions, devices, backends, the embedded model and extras. The exit code is 0 if "
        "everything works except extras, otherwise 1.",
    )
    parser.set_defaults(run=_doctor)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _doctor(args: argparse.Namespace) -> None:
    from emavos.doctor import examine

    report = examine()
    _print_json(report) if args.json else _print(report)
    if not report.ok:
        raise ValueError("something that the library needs does not work; it is named above")


def _print_json(report: Report) -> None:
    import dataclasses
    import json

    print(json.dumps({"ok": report.ok, **dataclasses.asdict(report)}, indent=2))


def _print(report: Report) -> None:
    lines = [("packages", ", ".join(f"{name} {v or 'MISSING'}" for name, v in report.versions.items()))]
    lines.append(("device", report.device))
    native = {True: "native", False: "not native: slower than float32", None: "not known"}
    lines.append(("bfloat16", native[report.bfloat16]))
    dtypes = ", ".join(f"{dtype} for {name}" for name, dtype in report.dtypes.items())
    lines.append(("dtype auto", dtypes or "not known: no model can be loaded"))
    lines.append(("threads", " ".join([str(report.threads), *_settings(report)])))
    lines.append(("model", f"embedded, {_state(report.weights)}"))
    lines += [(f"readout {name}", _readout(name, reason)) for name, reason in report.readouts.items()]
    lines.append(("readout auto", _auto(report)))
    lines.append(("video", report.video))
    for extra in report.extras:
        lacks = f"lacks {', '.join(extra.missing)}: {extra.install}" if extra.missing else "installed"
        lines.append((f"extra {extra.name}", lacks))
    if not report.extras:
        lines.append(("extras", "not known: the package is not installed, but run from its source"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")


def _state(reason: str | None) -> str:
    return "works" if reason is None else reason


def _readout(name: str, reason: str | None) -> str:
    from emavos.doctor import NEEDED

    return _state(reason) if reason is None or name in NEEDED else f"not here, and not needed: {reason}"


def _auto(report: Report) -> str:
    if report.library is not None:
        return f"{report.auto}, library {report.library}"
    if report.prepared is None:
        return report.auto
    runs = report.readouts["native"] is None
    advice = "; `emavos prepare` makes it native" if runs else ""
    return f"{report.auto}; native is not used: {report.prepared}{advice}"


def _settings(report: Report) -> list[str]:
    return [f"{name}={value}" for name, value in report.environment.items()]
