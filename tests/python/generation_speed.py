"""What examples/studies/generation_speed.rs measures, in transformers.

  python generation_speed.py MODEL_DIR PROMPT_TOKENS TOKENS [PROMPTS [REPETITIONS]]
"""

import os
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer


class First(BaseStreamer):
    """Notes when the first new token comes; the first call brings the prompt."""

    def __init__(self):
        self.calls = 0

    def put(self, value):
        self.calls += 1
        if self.calls == 2:
            self.at = time.perf_counter()

    def end(self):
        pass


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    directory, prompt_tokens, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    prompts, repetitions = [int(v) for v in sys.argv[4:6] + ["1", "3"][len(sys.argv[4:6]):]]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = torch.tensor([[3 + (31 * t + 7 * prompt) % 400 for t in range(prompt_tokens)] for prompt in range(prompts)])
    best = (float("inf"), float("inf"))
    for _ in range(repetitions):
        first, start = First(), time.perf_counter()
        with torch.no_grad():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens,
                           pad_token_id=0, streamer=first if prompts == 1 else None)
        end = time.perf_counter()
        best = (min(best[0], getattr(first, "at", start) - start), min(best[1], end - start))
    rest = (tokens - 1) * prompts / (best[1] - best[0])
    first = f"first token {best[0]:.3f} s" if prompts == 1 else "first tokens not told apart"
    rest = rest if prompts == 1 else tokens * prompts / best[1]
    print(f"transformers {transformers.__version__}: {first}, then {rest:.1f} tokens/s ({prompts} prompts, {best[1]:.2f} s)")
