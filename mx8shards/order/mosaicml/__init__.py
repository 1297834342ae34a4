"""In which order does MosaicML Streaming read samples? The same order, computed from its settings, bit for bit."""
