"""A version on disk: the project's code, what training gave, and how rows become predictions; MLflow can load it too.

::

    MLmodel  requirements.txt  python_env.yaml    what MLflow reads
    version.json                                  the Manifest below
    code/                                         the project without its tests
    model.pkl  kept.pkl                           trained on all rows: what answers
    probe.pkl  probe_kept.pkl                     trained without the untouched rows: what gates judge
    anomaly.json                                  what its rows were like: how strange is another?
    sample.parquet                                up to 50 rows of input; its schema is what requests are held to
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from orrery.errors import Damaged, NotUnderstood
from orrery.pipeline.checkout import Checkout
from orrery.pipeline.manifest import Manifest as Manifest
from orrery.pipeline.manifest import Repair as Repair
from orrery.pipeline.manifest import read_manifest as read_manifest
from orrery.pipeline.values import decode, digest, encode

if TYPE_CHECKING:
    from orrery.stats.anomaly import AnomalyScore

SAMPLE_ROWS = 50
SCORE = "anomaly.json"
MLFLOW_VERSION = "3.17.2"
"""The MLflow whose model format is written."""
_FILE_BYTES = 1_000_000
"""Larger files of a checkout are data, and no part of a version's code."""
_LEFT_OUT = {"tests", "test", "__pycache__", "node_modules", "venv", "notebooks", "mlruns"}


@dataclass(frozen=True)
class Fitted:
    """What one training gave."""

    model: Any
    kept: dict[str, Any]


class ArtifactCode:
    """Project classes in a version's pickles: by name, for the code lies beside them and changes never."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout

    def reference(self, thing: Any) -> tuple[str, str, str] | None:
        """Module and qualified name of a top-level class or function of the project, else None."""
        module_name, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
        module = self._checkout.modules.get(module_name) if isinstance(module_name, str) else None
        if module is None or _named(module, qualname) is not thing:
            return None
        return module.__name__, qualname, ""

    def relative(self, path: PurePath) -> str:
        """A path as text (pickles name none; keys do)."""
        return str(path)

    def resolve(self, module: str, qualname: str, code_digest: str) -> Any:
        """The class or function of a reference.

        Raises
        ------
        Damaged
            It is not in the version's code.
        """
        try:
            thing = _named(self._checkout.load(module), qualname)
        except ImportError:
            thing = None
        if thing is None:
            raise Damaged(f"The version's code has no {module}.{qualname}.")
        return thing


def _named(module: ModuleType, qualname: str) -> Any:
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found


def read_fitted(artifact: Path | str, which: str, checkout: Checkout) -> Fitted:
    """Read what training gave, ``"model"`` or ``"probe"``.

    Raises
    ------
    Damaged
        If a library or class that it needs is not there, or the file is not what was written.
    """
    folder, code = Path(artifact), ArtifactCode(checkout)
    with checkout.active():
        kept = "kept" if which == "model" else "probe_kept"
        values = [decode("pickle", (folder / f"{name}.pkl").read_bytes(), code) for name in (which, kept)]
    return Fitted(*values)


def write_artifact(
    folder: Path, manifest: Manifest, checkout: Checkout, fitted: Fitted, probe: Fitted, sample: pl.DataFrame
) -> Manifest:
    """Write a version into an empty or new folder; returns its manifest with the digest of the code.

    Parameters
    ----------
    checkout
        The project's modules as they were trained with.
    sample
        Rows of the training data, with all its columns; the target's values are not kept.

    Raises
    ------
    NotUnderstood
        If a model or a kept value cannot be stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    code, values = ArtifactCode(checkout), {}
    with checkout.active():
        for name, each in (("", fitted), ("probe_", probe)):
            values[name.rstrip("_") or "model"] = ("The model", each.model)
            values[f"{name}kept"] = ("What is kept for serving", each.kept)
        for name, (words, value) in values.items():
            try:
                encoded = encode(value, code)
            except NotUnderstood as error:
                raise NotUnderstood(f"{words} cannot be stored: {error.what}") from error
            (folder / f"{name}.pkl").write_bytes(encoded.data)
    shown = sample.head(SAMPLE_ROWS)
    if manifest.target in shown.columns:
        unknown = pl.lit(None, dtype=shown.schema[manifest.target])
        shown = shown.with_columns(unknown.alias(manifest.target))
    shown.write_parquet(folder / "sample.parquet")
    manifest = msgspec.structs.replace(manifest, code=_copy_code(checkout.root, folder / "code"))
    _write_manifest(folder, manifest)
    _write_mlflow(folder, manifest, sample, checkout)
    return manifest


def write_score(folder: Path, score: AnomalyScore) -> None:
    """Add to a version what tells how strange a row is."""
    (folder / SCORE).write_bytes(score.to_bytes())


def read_score(folder: Path) -> AnomalyScore | None:
    """Read what tells how strange a row is; None where a version has nothing of the kind.

    Raises
    ------
    Damaged
        If it is not what was written.
    """
    from orrery.stats.anomaly import AnomalyScore  # brings SciPy, which a server has no use for

    try:
        return AnomalyScore.from_bytes((folder / SCORE).read_bytes())
    except FileNotFoundError:
        return None


def make_repair(parent: Path, slope: float, intercept: float, out: Path) -> Manifest:
    """Make a version that is its parent with repaired probabilities; a repair of a repair is the two in one.

    Files are hard links where the file system allows it.

    Raises
    ------
    NotUnderstood
        If the parent is no binary classifier.
    """
    manifest = read_manifest(parent)
    if manifest.task != "binary":
        raise NotUnderstood(f"A {manifest.task} model has no single probability that could be repaired.")
    before = manifest.repair or Repair(1.0, 0.0)
    repair = Repair(slope * before.slope, slope * before.intercept + intercept)
    manifest = msgspec.structs.replace(manifest, repair=repair, change="repair")
    shutil.copytree(parent, out, copy_function=_link, dirs_exist_ok=True)
    _write_manifest(out, manifest)
    text = (parent / "MLmodel").read_text()
    lines = [f"model_uuid: {uuid.uuid4().hex}" if x.startswith("model_uuid:") else x for x in text.splitlines()]
    _replace(out / "MLmodel", "\n".join(lines) + "\n")
    return manifest


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _replace(path: Path, text: str) -> None:
    """Write a file under a new inode: the old one may be another version's."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    _replace(folder / "version.json", msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode() + "\n")


def _copy_code(root: Path, target: Path) -> str:
    """Copy the project's code, and small files that it may read, without tests; returns the digest of it all."""
    texts: list[bytes | str] = []
    target.mkdir(exist_ok=True)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(x for x in folders if x not in _LEFT_OUT and not x.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith((".", "test_")) or name == "conftest.py" or file.stat().st_size > _FILE_BYTES:
                continue
            place = file.relative_to(root)
            content = file.read_bytes()
            texts += [str(place), content]
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(content)
    return digest(*texts)


def _write_mlflow(folder: Path, manifest: Manifest, frame: pl.DataFrame, checkout: Checkout) -> None:
    """Write the files of MLflow's format by hand: importing MLflow costs more than most trainings."""
    python = platform.python_version()
    unneeded = (manifest.entity, manifest.time)  # they tell rows apart; a prediction can do without
    columns = [_mlflow_column(frame.get_column(name), name in unneeded) for name in manifest.columns]
    shape = [-1] if manifest.width == 1 else [-1, manifest.width]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": shape}}]
    requirements = _requirements(checkout)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    (folder / "python_env.yaml").write_text(f"python: {python}\ndependencies:\n- -r requirements.txt\n")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    (folder / "MLmodel").write_text(
        "\n".join(
            [
                "artifact_path: model",
                "flavors:",
                "  python_function:",
                "    data: .",
                "    env:",
                "      virtualenv: python_env.yaml",
                f"    loader_module: {__name__.rpartition('.')[0]}.flavor",
                f"    python_version: {python}",
                f"mlflow_version: {MLFLOW_VERSION}",
                f"model_size_bytes: {size}",
                f"model_uuid: {uuid.uuid4().hex}",
                "signature:",
                f"  inputs: {_quoted(json.dumps(columns))}",
                f"  outputs: {_quoted(json.dumps(outputs))}",
                "  params: null",
                f"utc_time_created: {_quoted(datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S.%f'))}",
                "",
            ]
        )
    )


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _mlflow_column(series: pl.Series, unneeded: bool) -> dict[str, Any]:
    dtype, nulls = series.dtype, series.null_count() > 0
    if dtype == pl.Boolean:
        kind = "boolean"
    elif dtype.is_integer():
        # Pandas, in which MLflow hands over rows, has floats where integers are missing.
        kind = (
            "double" if nulls else "integer" if dtype in (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16) else "long"
        )
    elif dtype.is_numeric():
        kind = "float" if dtype == pl.Float32 else "double"
    elif isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        kind = "string"
    elif isinstance(dtype, pl.Datetime | pl.Date):
        kind = "datetime"
    else:
        return {"type": "any", "name": series.name, "required": False}
    return {"type": kind, "name": series.name, "required": not (nulls or unneeded)}


_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "PyYAML", "cv2": "opencv-python"}


def _requirements(checkout: Checkout) -> list[str]:
    """The project's own list if it has one, else the versions of what its modules have imported."""
    own = checkout.root / "requirements.txt"
    lines = own.read_text().splitlines() if own.is_file() else []
    if not lines:
        names = {"polars", "numpy", "cloudpickle"}
        for module in checkout.modules.values():
            for value in vars(module).values():
                home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
                names.add(home.partition(".")[0] if isinstance(home, str) else "numpy")
        for name in sorted(names - set(sys.stdlib_module_names)):
            found = _DISTRIBUTIONS.get(name, name)
            try:
                lines.append(f"{found}=={importlib.metadata.version(found)}")
            except importlib.metadata.PackageNotFoundError:
                continue  # a module of the project itself
    if not any(line.startswith("orrery-ml") for line in lines):
        lines.append(f"orrery-ml=={importlib.metadata.version('orrery-ml')}")
    return lines
