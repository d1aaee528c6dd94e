"""From text to batches: corpora, the byte-level tokenizer, token files and their cache, the data order."""
