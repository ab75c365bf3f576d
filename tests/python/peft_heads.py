"""The other side of tests/peft/heads.rs: transformers and PEFT read adapters with heads that were saved by this crate.

    BASE ADAPTER ROWS N_CLASSES OUT    the logits of each row, as `logits [rows, classes]` in f64; an adapter `-` is none: the base has its head,
                                       with every weight, and is all that there is
"""

import json
import sys
import warnings

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

if __name__ == "__main__":
    torch.set_num_threads(2)
    base, adapter, rows, n_classes, out = sys.argv[1:]
    load = AutoModelForSequenceClassification.from_pretrained
    if adapter == "-":
        model, info = load(base, dtype=torch.float32, output_loading_info=True)
        assert model.num_labels == int(n_classes), model.num_labels
        assert model.config.architectures == [type(model).__name__], model.config.architectures
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        logits = torch.cat([model.eval()(input_ids=torch.tensor([row])).logits.detach() for row in json.loads(rows)])
        save_file({"logits": logits.double().contiguous()}, out)
        sys.exit()
    model = load(base, num_labels=int(n_classes), dtype=torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, adapter).eval()
    told = [str(w.message) for w in caught]
    bad = [text for text in told if "missing" in text.lower() or "unexpected" in text.lower()]
    assert not bad, bad
    assert model.peft_config["default"].task_type == "SEQ_CLS"
    with torch.no_grad():
        logits = torch.cat([model(input_ids=torch.tensor([row])).logits for row in json.loads(rows)])
    save_file({"logits": logits.double().contiguous()}, out)
