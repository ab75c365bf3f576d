"""The other side of tests/peft_round_trip.rs: adapters made and read by PEFT, directories read by transformers.

make   BASE ROWS DTYPE CASES OUT   trains an adapter for every case, saves it under OUT/<name>, with its logits
logits BASE ROWS DTYPE JOBS        the logits of adapters ({"kind": "adapter"}) and of whole models ({"kind": "model"})
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

LOGITS = "logits.safetensors"


def base(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def save_logits(model, rows, path, dtype):
    model = model.eval().to(dtype)
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([row])).logits[0].double().contiguous() for row in rows]
    save_file({f"row.{i}": logits for i, logits in enumerate(rows)}, path)


def load_adapter(directory, adapter):
    """Fails where PEFT only warns: about tensors that are missing or fields that it does not know."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base(directory), adapter)
    told = [str(w.message) for w in caught]
    bad = [text for text in told if "missing" in text.lower() or "unexpected" in text.lower()]
    assert not bad, f"{adapter}: {bad}"
    return model


def make(directory, rows, dtype, cases, out):
    for case in cases:
        torch.manual_seed(case["seed"])
        model = get_peft_model(base(directory), LoraConfig(task_type="CAUSAL_LM", **case["config"]))
        # a few steps of training move whatever the configuration trains; B alone would stay near zero
        trained = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, case.get("b", 0.05))
        optimizer = torch.optim.AdamW(trained, lr=case.get("lr", 1e-3))
        model.train()
        for _ in range(case.get("steps", 3)):
            for row in rows:
                ids = torch.tensor([row])
                model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        target = out / case["name"]
        model.save_pretrained(target)
        weights = target / "adapter_model.safetensors"
        if case.get("dtype"):
            stored = getattr(torch, case["dtype"])
            save_file({k: v.to(stored) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
        if case.get("names") == "bare":
            # as in state dicts of models that PEFT's layers were put into directly, adapter name and all
            prefix = "base_model.model."
            renamed = {
                k.removeprefix(prefix).replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."): v
                for k, v in load_file(weights).items()
            }
            logits_of = load_adapter(directory, target)
            save_file(renamed, weights, metadata={"format": "pt"})
        else:
            logits_of = load_adapter(directory, target)
        save_logits(logits_of, rows, target / LOGITS, dtype)


def logits(directory, rows, dtype, jobs):
    for job in jobs:
        path = Path(job["dir"])
        model = base(path) if job["kind"] == "model" else load_adapter(directory, path)
        save_logits(model, rows, path / LOGITS, dtype)


if __name__ == "__main__":
    torch.set_num_threads(2)
    command, directory, rows, dtype = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), getattr(torch, sys.argv[4])
    if command == "make":
        make(directory, rows, dtype, json.loads(sys.argv[5]), Path(sys.argv[6]))
    else:
        logits(directory, rows, dtype, json.loads(sys.argv[5]))
