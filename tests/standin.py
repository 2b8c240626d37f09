"""Stands in for `fair train`: logs how it is called, and writes results.json.

What else it does goes by the seed: 13 fails, 14 ends without results, 21 and 22 wait for one another (two minutes at
most), 98 and 99 say their process number and go on until they are ended, 98 also after SIGTERM. STANDIN is the folder
for all that.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder, arguments = Path(os.environ["STANDIN"]), sys.argv[1:]
with open(folder / "calls.jsonl", "a", encoding="utf-8") as calls:
    print(json.dumps(arguments), file=calls)
output, seed = Path(arguments[arguments.index("--output-dir") + 1]), arguments[arguments.index("--seed") + 1]
print("noise of a run", flush=True)
if seed == "13":
    sys.exit("Error: it broke\nand more")
if seed in ("21", "22"):
    (folder / f"here.{seed}").touch()
    for _ in range(12_000):
        if len(list(folder.glob("here.*"))) == 2:
            break
        time.sleep(0.01)
    else:
        sys.exit("Error: the other did not come")
if seed == "98":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if seed in ("98", "99"):
    (folder / "pid.part").write_text(str(os.getpid()))
    (folder / "pid.part").rename(folder / "pid")
    time.sleep(600)
if seed != "14":
    output.mkdir(parents=True, exist_ok=True)
    results = {"accuracy": 50 + int(seed), "macro_f1": 50.0, "backbone": "tiny", "config_hash": "a"}
    (output / "results.json").write_text(json.dumps(results))
