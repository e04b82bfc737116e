# The commands of a working day; they use whichever Python comes first on PATH.
.PHONY: check test fix bench

check:        # lint, format, types: changes nothing
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy

test:         # every test
	python -m pytest

fix:          # what can be mended by a machine
	python -m ruff check --fix .
	python -m ruff format .

bench:        # the figures that the README quotes
	python benchmarks/overhead.py
	python benchmarks/stderr_flood.py
	python benchmarks/long_log.py
	python benchmarks/judge.py
	python benchmarks/shipped_specs.py
	python benchmarks/inference_stage.py
	python benchmarks/suite_reports.py
	python benchmarks/discovery.py
	python benchmarks/pytest_collection.py
	python benchmarks/watch.py
	python benchmarks/pool.py --suites 100
