"""The course's own model: corpus, tokenizer, training, weights and card. All that made it is in this room."""
