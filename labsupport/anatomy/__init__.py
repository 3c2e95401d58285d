"""The arithmetic of a model: parameters, bytes, FLOPs and KV-cache bytes from its shape alone.

Nothing here loads weights or imports torch: a shape comes from a Hugging Face `config.json`, a GGUF header or
a safetensors header, and everything else is multiplication that a reader can redo by hand.
"""

