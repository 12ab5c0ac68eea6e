"""Unfinished transfers, posted by the pipe. Run: TRANSFER_WHSEC=whsec_... flask --app flask_handler run --port 8000"""

import os

from flask import Flask, Response, request

from truba.webhook import NotGenuine, Unfinished, answer, verify

app = Flask(__name__)
SECRETS = os.environ["TRANSFER_WHSEC"].split()  # one, or two while it is changed


@app.post("/unfinished")
def unfinished() -> Response:
    try:
        event = verify(request.headers, request.get_data(), SECRETS)
    except NotGenuine as error:
        return Response(str(error), 401)
    if isinstance(event, Unfinished) and event.records[-1] != b"debited":
        # Debit here, once for each event.session (a unique key): the pipe, or an eavesdropper, may send it again.
        return Response(answer(append=[b"debited"], store=0), mimetype="application/json")
    return Response(status=204)  # done: the session is deleted
