"""The servers that tests, benchmarks and README's examples start, all of them in one way (`python -m servers --help`).

| file | server |
|---|---|
| `base.py` | what a server is: started, stopped, killed, and started again at the same address |
| `kafka.py` | a Kafka broker; `kafka-pom.xml` says what it consists of |
| `redis.py` | Redis |
| `s3.py` | moto's S3 server, from an environment of its own |
| `v3io/` | a stand-in for V3IO's web API |
| `__main__.py` | the command that starts them for a person |

They are for trying things out: they listen only on 127.0.0.1. Don't keep data in them.
"""
