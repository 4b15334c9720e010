"""Runs one benchmark or all of them: `python -m bench [NAME] [--quick|--smoke] [--json]`."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    "activations",
    "answers",
    "approvals",
    "attestation",
    "broker",
    "cifar_extraction",
    "detection",
    "detection_baselines",
    "detection_conditions",
    "disclosure",
    "dossier",
    "drift",
    "export",
    "federated",
    "few_clients",
    "gate",
    "gate_grpc",
    "gate_many",
    "gate_chat",
    "harden",
    "homomorphic",
    "hydra",
    "information",
    "install",
    "intel",
    "last_layer",
    "ledger",
    "ledger_query",
    "limits",
    "loading",
    "loading_gpu",
    "manner",
    "marks",
    "membership",
    "model",
    "newcomers",
    "privacy",
    "probing",
    "redteam",
    "redteam_text",
    "reexecution",
    "refusal",
    "rivals",
    "scan",
    "seal",
    "storage",
    "tabular",
    "tpm",
    "triggers",
    "watch",
    "watch_epochs",
    "watch_text",
)


def main(arguments: list[str]) -> int:
    """Run the named script, or all. Returns 1 if one crashed; a missed bar is printed, not an error."""
    flags = [argument for argument in arguments if argument.startswith("--")]
    names = [argument for argument in arguments if not argument.startswith("--")]
    unknown = [name for name in names if name not in SCRIPTS]
    if unknown or any(flag not in {"--quick", "--smoke", "--json"} for flag in flags):
        print(f"usage: python -m bench [{'|'.join(SCRIPTS)}] [--quick|--smoke] [--json]", file=sys.stderr)
        return 2
    documents: dict[str, object] = {}
    crashed = []
    for name in names or SCRIPTS:
        # a process each, so that memory and caches of one do not colour the next
        command = [sys.executable, "-m", f"bench.{name}", *flags]
        ended = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode != 0:
            crashed.append(name)
        elif "--json" in flags:
            documents[name] = json.loads(ended.stdout)
        else:
            print(ended.stdout, flush=True)
    if "--json" in flags and not crashed:
        print(json.dumps(documents[names[0]] if len(names) == 1 else documents))
    if crashed:
        print(f"crashed: {', '.join(crashed)}", file=sys.stderr)
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
