"""What happens, in order: the graph of stages, the flow and the command line."""
