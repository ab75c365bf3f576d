"""The peer of `studies text-parity`: transformers + PEFT on the tokens, batches and first adapter that it left.

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    python examples/studies/text_parity/peer_text.py --model DIR --dir target/text_parity

A step's loss is the mean over the scored tokens of all its micro-batches, as transformers' Trainer takes it (`num_items_in_batch`). The
library divides by the epoch's mean number of scored tokens a step in its place, so that a token of a small step weighs as much as any
other (`--rule epoch` does that here too). AdamW takes a constant factor out of both.
"""

import argparse
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--dir", required=True)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rule", choices=["step", "epoch"], default="step")
a = parser.parse_args()
torch.set_num_threads(a.threads)
shared = json.load(open(os.path.join(a.dir, "texts.json")))
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa")
model = PeftModel.from_pretrained(model, os.path.join(a.dir, "start"), is_trainable=True)
weights = [p for p in model.parameters() if p.requires_grad]
train, held_out = shared["train"], shared["held_out"]

# the tokens are those of transformers' tokenizer
tokenizer = AutoTokenizer.from_pretrained(a.model)
for text in train + held_out:
    again = tokenizer.encode(tokenizer.decode(text["ids"][:-1]), add_special_tokens=False)
    assert again == text["ids"][:-1] and text["ids"][-1] == tokenizer.eos_token_id, text["id"]


def scored(text):
    return sum(r["end"] - r["start"] for r in text["scored"])


def loss_sum(texts):
    """The sum of −log p over the scored tokens."""
    longest = max(len(text["ids"]) for text in texts)
    ids = torch.tensor([text["ids"] + [0] * (longest - len(text["ids"])) for text in texts])
    mask = torch.tensor([[1] * len(text["ids"]) + [0] * (longest - len(text["ids"])) for text in texts])
    labels = torch.full_like(ids, -100)
    for i, text in enumerate(texts):
        for r in text["scored"]:
            labels[i, r["start"] : r["end"]] = ids[i, r["start"] : r["end"]]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def perplexity():
    model.eval()
    order = sorted(held_out, key=lambda text: -len(text["ids"]))
    with torch.no_grad():
        total = sum(loss_sum(order[i : i + 4]).item() for i in range(0, len(order), 4))
    return math.exp(total / sum(map(scored, held_out)))


optimizer = torch.optim.AdamW(weights, lr=shared["learning_rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
found, nlls, training, begun = [], [], 0.0, time.time()
for batches in shared["epochs"]:
    model.train()
    start, total = time.time(), 0.0
    steps = [batches[i : i + shared["accumulation"]] for i in range(0, len(batches), shared["accumulation"])]
    mean = sum(map(scored, train)) / len(steps)
    for step in steps:
        n = sum(scored(train[i]) for batch in step for i in batch) if a.rule == "step" else mean
        optimizer.zero_grad()
        for batch in step:
            loss = loss_sum([train[i] for i in batch])
            total += loss.item()
            (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(weights, shared["max_grad_norm"])
        optimizer.step()
    training += time.time() - start
    nlls.append(total / sum(map(scored, train)))
    found.append(perplexity())
    print(json.dumps({"epoch": len(found), "perplexity": found[-1], "train_nll": nlls[-1]}), flush=True)
name = "peer.json" if a.rule == "step" else "peer_epoch.json"
result = dict(perplexity=found, train_nll=nlls, training_seconds=training, seconds=time.time() - begun, rule=a.rule, threads=a.threads)
with open(os.path.join(a.dir, name), "w") as file:
    json.dump(result, file, indent=1)
