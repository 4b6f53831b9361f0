"""Loaded by every Python process of a job that saves to ``bucket://``: says where fsspec finds that."""

import fsspec

fsspec.register_implementation("bucket", "bucket_store.Bucket")
