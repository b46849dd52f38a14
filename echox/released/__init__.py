"""The released EchoX and Soundwave checkpoints and other people's unit stacks, turned into ours exactly (docs/released.md)."""
