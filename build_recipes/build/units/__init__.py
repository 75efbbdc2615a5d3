"""Compiling many units under one memory budget: costs, the ninja graph, the broker and its launcher."""
