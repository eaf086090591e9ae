#!/usr/bin/env bash
# The quickstart as a flow, three times: everything runs; all is reused; one parameter is changed.
# usage: demo.sh BIN FOLDER, where BIN holds the `nbflow` command and FOLDER is emptied and used as the datastore.
set -euo pipefail

bin=$1
export NBFLOW_STORE=$2
notebook=examples/quickstart.ipynb

say() { printf '\n== %s\n\n' "$*"; }

rm -rf "$NBFLOW_STORE"
mkdir -p "$NBFLOW_STORE"

say "A first run: every step runs, the two models side by side"
"$bin/nbflow" run "$notebook"

say "Its result"
"$bin/nbflow" show quickstart/latest/evaluate/scores

say "A second run: nothing has changed, everything is reused"
"$bin/nbflow" run "$notebook"

say "One parameter changed: only what depends on it runs"
"$bin/nbflow" run "$notebook" -p rate=0.2
"$bin/nbflow" show quickstart/latest/evaluate/scores

say "To see it in JupyterLab"
echo "  NBFLOW_STORE=$NBFLOW_STORE $bin/jupyter lab $notebook"
echo "then run the cells, or put %flow run into a new one."
