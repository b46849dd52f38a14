"""Does the built wheel hold what a user needs: every module, every recipe, the shipped models, and nothing beside `echox/`?"""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1_000_000


def main(wheel: str) -> int:
    """Print what is missing from `wheel` or too much in it; return the exit status."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "echox").rglob("*.py")}
    expected |= {f"echox/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").rglob("*.yaml")}
    for model in (path.parent for path in (ROOT / "echox").glob("*/config.json")):
        expected |= {str(path.relative_to(ROOT)) for path in model.rglob("*") if path.is_file()}
    problems = [f"missing {name}" for name in sorted(expected - set(sizes))]
    problems += [f"unexpected {name}" for name in sizes if not name.startswith(("echox/", "openechox-"))]
    problems += [f"{name} has {size} bytes" for name, size in sizes.items() if size > 45 * MEGABYTE]
    if Path(wheel).stat().st_size > 100 * MEGABYTE:
        problems.append("the wheel is larger than 100 MB")
    print("\n".join(problems) or f"{Path(wheel).name}: {len(sizes)} files, all there")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
