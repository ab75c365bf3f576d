"""The peer of `studies throughput --form continuation`: PEFT + transformers, one right-padded row a choice, SDPA attention.

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    python examples/studies/throughput/peer_continuation.py --model DIR --data arc_easy/train.jsonl.gz

Prints one JSON line a stage: training with AdamW on cross-entropy over the choices' summed log-likelihoods, and inference. Logits are made at
the scored positions only.
"""

import argparse
import gzip
import json
import resource
import time

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--map-batch", type=int, default=16)
parser.add_argument("--map-n", type=int, default=96)
parser.add_argument("--threads", type=int, default=2)
a = parser.parse_args()
torch.set_num_threads(a.threads)
torch.manual_seed(0)
opener = gzip.open if a.data.endswith(".gz") else open
with opener(a.data, "rt") as lines:
    items = [item for item in map(json.loads, lines) if len(item["choices"]) == 4]
order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0)).tolist()
items = [items[i] for i in order]
tokenizer = AutoTokenizer.from_pretrained(a.model)
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa")
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
body, head = model.base_model.model.model, model.base_model.model.lm_head


def scores(batch):
    """Summed log-likelihoods `[items, 4]` of the choices, and the number of real tokens."""
    rows, starts = [], []
    for item in batch:
        prompt = tokenizer.encode(f"Question: {item['question']}\nAnswer:", add_special_tokens=False)
        for choice in item["choices"]:
            starts.append(len(prompt))
            rows.append(prompt + tokenizer.encode(f" {choice}", add_special_tokens=False))
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    hidden = body(input_ids=ids, attention_mask=mask).last_hidden_state
    places = [(r, t) for r, row in enumerate(rows) for t in range(starts[r], len(row))]
    row, place = torch.tensor(places).T
    log_p = F.log_softmax(head(hidden[row, place - 1]), -1).gather(1, ids[row, place][:, None])[:, 0]
    return torch.zeros(len(rows)).index_add(0, row, log_p).reshape(-1, 4), int(mask.sum())


def report(stage, seconds, n, tokens):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"stage": stage, "seconds": seconds, "items_per_s": n / seconds, "real_tokens_per_s": tokens / seconds, "peak_rss_mb": peak}), flush=True)


optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4, weight_decay=0.0)
model.train()
start, total = time.time(), 0
for step in range(a.steps):
    batch = items[step * a.batch : (step + 1) * a.batch]
    logits, tokens = scores(batch)
    loss = F.cross_entropy(logits, torch.tensor([item["answer"] for item in batch]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total += tokens
report("train", time.time() - start, a.steps * a.batch, total)

model.eval()
start, total = time.time(), 0
with torch.no_grad():
    for first in range(0, a.map_n, a.map_batch):
        _, tokens = scores(items[first : first + a.map_batch])
        total += tokens
report("map", time.time() - start, a.map_n, total)
