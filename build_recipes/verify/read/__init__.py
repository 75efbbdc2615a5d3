"""Python sources read without running them: names, flow, calls."""
