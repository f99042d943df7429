# What the scripts beside this one share; they run in the root of the checkout.
# shellcheck shell=bash

# Tests that tell nothing of the CPU's kernels, for pytest's -k: of the GPU, and of what stands around spcy.
elsewhere="emulated or cuda or gpu or build or docs or bench or demo or readme"

needs() { # needs COMMAND=PACKAGE ..: install Debian's packages of commands that are not there
    local pair missing=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] || apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

requirements() { # print what building spcy, and running its tests on a CPU, take from the package index
    "${PYTHON:-python3}" - <<'PYTHON'
import tomllib

with open("pyproject.toml", "rb") as file:
    about = tomllib.load(file)
extras = about["project"]["optional-dependencies"]
wanted = [*about["build-system"]["requires"], *about["project"]["dependencies"]]
wanted += [*extras["test"], *extras["bfloat16"], *extras["weights"], *extras["scan"], *extras["progress"]]
print(*(name for name in wanted if not name.startswith(("spcy", "nvidia"))), sep="\n")
PYTHON
}

environment() { # environment FOLDER: a virtual environment with these
    [ -x "$1/bin/pytest" ] && return
    "${PYTHON:-python3}" -m venv "$1"
    requirements >"$1/requirements.txt"
    "$1/bin/pip" install -q -r "$1/requirements.txt"
}

copy() { # copy FOLDER: the sources and tests, so that builds of different flags do not mix
    mkdir -p "$1"
    cp -r setup.py pyproject.toml README.md MANIFEST.in LICENSE src spcy tests docs asv_bench "$1"
    find "$1" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -r {} +
}

say() { echo "== $* ($(date +%T))"; }
