"""The other side of tests/peft_round_trip.rs: adapters made and read by PEFT, directories read by transformers.

make   BASE ROWS DTYPE CASES OUT   trains an adapter for every case, saves it under OUT/<name>, with its logits
logits BASE ROWS DTYPE JOBS        the logits of adapters ({"kind": "adapter"}) and of whole models ({"kind": "model"})
patterns SEED N OUT                random regular expressions, texts, and what Python's re says of them

A case or job may have {"resize": tokens of the vocabulary} and {"auto": true} for a base from AutoModel, whose logits are those of
the head on disk.
"""

import json
import random
import re
import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

LOGITS = "logits.safetensors"


def base(directory, case):
    kind = AutoModel if case.get("auto") else AutoModelForCausalLM
    model = kind.from_pretrained(directory, dtype=torch.float32)
    if case.get("resize"):
        model.resize_token_embeddings(case["resize"])
    return model


def save_logits(model, rows, path, dtype, head=None):
    model = model.eval().to(dtype)

    def logits(row):
        out = model(input_ids=torch.tensor([row]))
        return out.logits if head is None else out.last_hidden_state @ head.weight.to(dtype).T

    with torch.no_grad():
        rows = [logits(row)[0].double().contiguous() for row in rows]
    save_file({f"row.{i}": logits for i, logits in enumerate(rows)}, path)


def head_of(directory, case):
    return base(directory, {}).get_output_embeddings() if case.get("auto") else None


def load_adapter(directory, adapter, case):
    """Fails where PEFT only warns: about tensors that are missing or fields that it does not know."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base(directory, case), adapter)
    told = [str(w.message) for w in caught]
    bad = [text for text in told if "missing" in text.lower() or "unexpected" in text.lower()]
    assert not bad, f"{adapter}: {bad}"
    return model


def make(directory, rows, dtype, cases, out):
    for case in cases:
        torch.manual_seed(case["seed"])
        model = get_peft_model(base(directory, case), LoraConfig(**{"task_type": "CAUSAL_LM", **case["config"]}))
        for name, parameter in model.named_parameters():
            # what somebody trains without telling PEFT
            parameter.requires_grad |= any(part in name for part in case.get("train", []))
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
                if case.get("auto"):
                    model(input_ids=ids).last_hidden_state.square().mean().backward()
                else:
                    model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        target = out / case["name"]
        model.save_pretrained(target, **case.get("save", {}))
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
            logits_of = load_adapter(directory, target, case)
            save_file(renamed, weights, metadata={"format": "pt"})
        else:
            logits_of = load_adapter(directory, target, case)
        save_logits(logits_of, rows, target / LOGITS, dtype, head_of(directory, case))


def logits(directory, rows, dtype, jobs):
    for job in jobs:
        path = Path(job["dir"])
        model = base(path, {}) if job["kind"] == "model" else load_adapter(directory, path, job)
        save_logits(model, rows, path / LOGITS, dtype, head_of(directory, job))


class Patterns:
    """Random expressions over a few characters, of what people write for module paths: nobody repeats look-around."""

    CHARACTERS = "ab1_xA."

    def __init__(self, rng):
        self.rng, self.groups = rng, 0

    def pick(self, *choices):
        return self.rng.choice(choices)

    def atom(self, depth):
        kinds = ["char"] * 6 + ["class", "set", "set", "place"]
        kind = self.pick(*kinds, *(["group", "group", "look", "look", "behind", "other", "again"] if depth else []))
        if kind == "class":
            return self.pick(*r"\d \w \s \D \W \S".split())
        if kind == "set":
            members = self.rng.choices(["a", "b", "a-x", "0-9", r"\d", r"\w", ".", "_", "&&", "[", "-", r"\."], k=self.pick(1, 2, 3))
            return f"[{self.pick('', '^')}{''.join(members)}]"
        if kind == "place":
            return self.pick("^", "$", r"\b", r"\B", r"\A", r"\Z")
        if kind == "group":
            self.groups += 1
            return f"({self.pick('', f'?P<g{self.groups}>')}{self.choice(depth - 1)})"
        if kind == "look":
            return f"(?{self.pick('=', '!')}{self.choice(depth - 1)})"
        if kind == "behind":
            fixed = "".join(self.rng.choices(["a", "b", ".", r"\w", "[ab]"], k=self.pick(1, 2)))
            return f"(?<{self.pick('=', '!')}{fixed})"
        if kind == "other":
            return f"(?{self.pick(':', 'i:') if sys.version_info < (3, 11) else self.pick(':', 'i:', '>')}{self.choice(depth - 1)})"
        if kind == "again" and self.groups:
            group = self.rng.randint(1, self.groups)
            name = self.pick(group, f"g{group}")
            return self.pick(f"\\{group}", f"(?P=g{group})", f"(?({name}){self.sequence(depth - 1)}|{self.sequence(depth - 1)})")
        return re.escape(self.pick(*self.CHARACTERS))

    def sequence(self, depth):
        def repeated(atom):
            if self.rng.random() < 0.6 or atom.startswith(("(?=", "(?!", "(?<")):
                return atom
            return atom + self.pick("*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "{0}", "{x") + self.pick("", "", "?")

        return "".join(repeated(self.atom(depth)) for _ in range(self.rng.randint(0, 4)))

    def choice(self, depth):
        return "|".join(self.sequence(depth) for _ in range(self.pick(1, 1, 1, 2, 3)))


def patterns(seed, n, out):
    warnings.simplefilter("ignore")
    rng, cases = random.Random(seed), []
    while len(cases) < n:
        pattern = Patterns(rng).choice(3)
        try:
            compiled = re.compile(pattern)
        except re.error:
            continue
        texts = ["".join(rng.choices(Patterns.CHARACTERS, k=rng.choice([1, 1, 2, 2, 3, 8]))) for _ in range(4)]
        cases.append([pattern, [[text, compiled.fullmatch(text) is not None] for text in texts]])
    Path(out).write_text(json.dumps(cases))


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1] == "patterns":
        patterns(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        sys.exit()
    command, directory, rows, dtype = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), getattr(torch, sys.argv[4])
    if command == "make":
        make(directory, rows, dtype, json.loads(sys.argv[5]), Path(sys.argv[6]))
    else:
        logits(directory, rows, dtype, json.loads(sys.argv[5]))
