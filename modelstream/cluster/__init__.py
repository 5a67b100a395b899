"""The pipeline on a cluster: MLRun deploys the functions to Nuclio, in the order of a Kubeflow workflow.

| file | what |
|---|---|
| `config` | what a file under `clusters/` says: where streams, tables and logs are, the image, the size of functions |
| `file` | reads one |
| `config_check` | checks it for everything that a function or Kubernetes would refuse |
| `secrecy` | which settings are secrets, judged by their names |
| `kafka_login` | how functions and triggers log in to Kafka |
| `project_secrets` | passwords and keys that MLRun keeps for the project |
| `triggers` | names of topics, stream paths and consumer groups for triggers |
| `functions` | the project's functions as MLRun objects, configured: triggers, environment, resources |
| `whole` | the project with every function complete, as it is compiled and stored |
| `conversion` | lets MLRun convert the notebooks in one process |
| `options` | what the workflow does in addition |
| `placeholders` | what a cluster's file still has from the shipped one |
| `summary` | what a deployment does, for a person |
| `plan` | the same in full, for `deploy --dry-run` |
| `differences` | what it would change of what MLRun holds, for `deploy --diff` |
| `api` | MLRun's API: connects, asks and deletes |
| `compiler` | the process that compiles the workflow |
| `jobs` | small jobs of the workflow: prepare streams and tables, wait until drained, promote a model, trim |
| `compile` | runs in the environment that has the Kubeflow compiler |
| `drift_job` | the drift report as a job of MLRun, with an event on a breach |
| `deploy` | what the commands `deploy` and `undeploy` do |
| `failures` | known failures of a deployment, and what to do about each |

The workflow itself is `workflow.py` beside `project.yaml`: MLRun loads it from there. MLRun is imported only inside
functions, so that importing these modules costs nothing.
"""
