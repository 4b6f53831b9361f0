"""Callbacks for other people's trainers: restartable and measured, without a loop of one's own.

``huggingface``   for ``transformers.Trainer``
``lightning``     for ``lightning.Trainer``
``companion``     what both do at each step
``seal``          which of their checkpoints are whole

Each imports the library it is for, and is itself imported by nothing of ours.
"""
