"""The HTTP half of the inference server: OpenAI's protocol in front of the engine process.

This process never touches the weights. It checks requests, renders chat templates, turns text into token
ids with the model's vocabulary alone, and streams back what the engine sends. `app` holds the routes; `run`
is the process behind `labsupport serve`; `launch` starts that process for a notebook.
"""
