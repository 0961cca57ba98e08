"""The public surface, a line a name: `python tests/surface.py > tests/surface.txt` writes it down.

What a user may rely on: the names that the packages list in `__all__`, those that docs/ and examples/ import
from elsewhere, and the commands with their options. Annotations are left out, as versions of Python write
them differently. docs/compatibility.md says what a change of these lines means.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import PurePath

import torch

PACKAGES = (
    "emavos",
    "emavos.annotations",
    "emavos.batch",
    "emavos.bridges",
    "emavos.clicks",
    "emavos.data",
    "emavos.evaluation",
    "emavos.frames",
    "emavos.io",
    "emavos.memory",
    "emavos.models",
    "emavos.training",
    "emavos.visualize",
    "emavos.weights",
)
NAMES = (
    "emavos.cli.main",
    "emavos.confidence.ObjectState",
    "emavos.weights.convert.from_stcn",
    "emavos.weights.convert.load_efficientnet_lite",
    "emavos.weights.convert.load_resnet",
    "emavos.weights.convert.read_checkpoint",
    "emavos.demo.synthetic_clip",
    "emavos.demo.synthetic_frames",
    "emavos.doctor.Extra",
    "emavos.doctor.Report",
    "emavos.doctor.examine",
    "emavos.doctor.extras",
    "emavos.evaluation.comparison.Comparison",
    "emavos.evaluation.comparison.Model",
    "emavos.evaluation.comparison.compare",
    "emavos.export.Difference",
    "emavos.export.check_onnx",
    "emavos.export.export_onnx",
    "emavos.export.export_programs",
    "emavos.machine.keep_freed_memory",
    "emavos.notebook.show",
    "emavos.review.Suggestion",
    "emavos.review.suggest",
)
_SPECIAL = {f"__{name}__" for name in ("call", "enter", "exit", "getitem", "iter", "len", "next")}


def surface() -> str:
    """All of it, sorted within each part."""
    lines = [line for name in public() for line in _lines(name, _find(name))]
    return "\n".join([*lines, *_commands()]) + "\n"


def public() -> list[str]:
    """The full names of what may be imported."""
    names = [f"{package}.{name}" for package in PACKAGES for name in sorted(import_module(package).__all__)]
    return [*names, *NAMES]


def _find(name: str) -> object:
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last)


def _lines(name: str, value: object) -> Iterator[str]:
    if typing.get_origin(value) is typing.Literal:
        yield f"{name}: one of {', '.join(map(repr, typing.get_args(value)))}"
    elif inspect.isclass(value) and not typing.get_args(value):
        yield f"class {name}{_bases(value)}"
        yield from sorted(f"    {line}" for line in _members(value))
    elif inspect.isroutine(value):
        yield f"{name}{_signature(value)}"
    elif name.endswith("__version__"):
        yield f"{name}: str"
    else:
        yield f"{name}: {_shown(value)}"


def _bases(cls: type) -> str:
    named = [base.__name__ for base in cls.__mro__[1:] if issubclass(base, (Exception, torch.nn.Module))]
    return f"({named[0]})" if named else ""


def _members(cls: type) -> Iterator[str]:
    """Its constructor, attributes, properties and methods, inherited ones too where they are emavos's.

    The fields of dataclasses and named tuples are the arguments of their constructors.
    """
    if typing.is_typeddict(cls):
        yield from (f"[{name!r}]" for name in typing.get_type_hints(cls))
        return
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    fields |= set(getattr(cls, "_fields", ()))
    if not getattr(cls, "_is_protocol", False) and not issubclass(cls, BaseException):
        yield f"__init__{_signature(cls)}"
    yield from (f"{name}: attribute" for name in _assigned(cls))
    members: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("emavos"):
            members |= vars(base)
    for name, member in members.items():
        if name in fields or (name[0] == "_" and name not in _SPECIAL):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            yield f"{name}{_signature(getattr(cls, name))}, {type(member).__name__}"
        elif inspect.isfunction(member):
            yield f"{name}{_signature(member)}"
        else:  # properties, cached or not, and constants
            yield f"{name}: attribute"


def _assigned(cls: type) -> set[str]:
    """The public attributes that its own constructor sets."""
    if dataclasses.is_dataclass(cls) or not inspect.isfunction(constructor := vars(cls).get("__init__")):
        return set()
    source = inspect.getsource(constructor)
    return set(re.findall(r"^ +self\.([a-z]\w*)(?:: [^=\n]+)? = ", source, re.MULTILINE))


def _signature(function: object) -> str:
    """Names, kinds and defaults of its parameters."""
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    plain = [
        p.replace(annotation=empty, default=empty if p.default is empty else _Text(_shown(p.default)))
        for p in signature.parameters.values()
    ]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _shown(value: object) -> str:
    """A default or a constant, the same in all versions of Python."""
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(map(_shown, value)))}}}"
    if isinstance(value, PurePath):
        return repr(value.as_posix())
    if inspect.isroutine(value):
        return value.__name__
    return "<factory>" if repr(value) == "<factory>" else f"<{type(value).__name__}>"


def _commands() -> Iterator[str]:
    from emavos.cli import _parser

    yield from _options(_parser())


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    deeper = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    yield f"$ {parser.prog}"
    for action in parser._actions:
        if action in deeper or isinstance(action, argparse._HelpAction):
            continue
        yield "    " + " ".join(_option(action))
    for commands in deeper:
        for command in commands.choices.values():
            yield from _options(command)


def _option(action: argparse.Action) -> Iterator[str]:
    yield "/".join(action.option_strings) or action.dest
    if action.nargs is not None:
        yield f"nargs={action.nargs}"
    if action.choices is not None:
        yield f"of {', '.join(map(str, action.choices))}"
    if action.required and action.option_strings:
        yield "required"
    if action.default not in (None, argparse.SUPPRESS):
        yield f"default={_shown(action.default)}"


if __name__ == "__main__":
    print(surface(), end="")
