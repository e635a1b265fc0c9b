"""The engine: a pure core, the ports it needs, and the runtime that drives it. Imports no other room."""
