# What people type. Each target is a few lines; what is longer is a script in scripts/.

dashboard := services/api/dashboard
target := $(abspath $(or $(CARGO_TARGET_DIR),target))
programs := -p observer -p observer-gateway -p observer-log-indexer -p observer-var-store -p observer-api

.PHONY: help run test test-faults cluster bench fmt dashboard servers clean-data cargo node

help:
	@echo 'make run         build all and start Observer with a simulated game; data under ./data'
	@echo 'make test        fetch the servers that tests need, then check and test everything'
	@echo 'make test-faults  the faults at full size; the rows belong in docs/reliability.md'
	@echo 'make cluster     the four services over NATS, Redis and Elasticsearch, on free ports'
	@echo 'make bench       measure; the numbers belong in docs/performance.md'
	@echo 'make fmt         format the Rust sources'
	@echo 'make clean-data  remove what make run and make cluster stored'

run: cargo dashboard
	@cargo build --release -p observer
	@OBSERVER_STORE__DATA_DIR="$${OBSERVER_STORE__DATA_DIR:-./data}" exec $(target)/release/observer serve --demo

# The dashboard comes first: the api has its files inside.
test: cargo dashboard servers tests/browser/node_modules/.package-lock.json
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace
	npm run --prefix $(dashboard) check
	npm test --prefix $(dashboard)
	cargo build $(programs)
	OBSERVER_BIN=$(target)/debug/observer npm test --prefix tests/browser

test-faults: cargo dashboard servers
	cargo clippy -p observer-tests --test faults -- -D warnings
	cargo test -p observer-tests --test faults -- --test-threads 1 --nocapture

cluster: cargo dashboard servers
	cargo build --release $(programs)
	@exec scripts/cluster $(target)/release

bench: cargo dashboard servers
	cargo run --release -p observer-tests --bin bench

fmt: cargo
	cargo fmt --all

clean-data:
	rm -rf data .cluster

dashboard: $(dashboard)/dist/index.html

servers:
	@scripts/fetch-test-servers

# Whatever in the dashboard's folder is neither installed nor built. Folders too: a file may go.
sources := $(shell find $(dashboard) \( -name node_modules -o -name dist \) -prune -o -type f -print) \
	$(shell find $(dashboard)/src -type d 2>/dev/null)

$(dashboard)/dist/index.html: $(dashboard)/node_modules/.package-lock.json $(sources)
	npm run --prefix $(dashboard) build
	@touch $@

%/node_modules/.package-lock.json: %/package-lock.json | node
	npm ci --prefix $* --no-audit --no-fund
	@touch $@

# need COMMAND,SENTENCE
need = @command -v $(1) >/dev/null || { echo 'make: $(1) is missing: $(2)' >&2; exit 1; }

cargo:
	$(call need,cargo,install Rust 1.95 or newer with rustup)

node:
	$(call need,node,install Node.js 20 or newer; it builds the dashboard)
	$(call need,npm,it comes with Node.js and fetches what builds the dashboard)
