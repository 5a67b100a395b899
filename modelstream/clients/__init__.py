"""What several stores share: the connection to one system, its URL, and its errors turned into ours.

| module | what |
|---|---|
| `sqlite` | SQLite files of streams and tables |
| `v3io` | V3IO, through its own client |
| `s3` | a place in a bucket, on any store that speaks S3 |
"""
