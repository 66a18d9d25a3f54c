"""What `make demo` runs: a real broker and a stand-in for the streams operator."""
