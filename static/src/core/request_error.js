// Conclusions from the error of a request to the server for the next request.
import { ConnectionLostError } from "@web/core/network/rpc";

const SESSION_ERRORS = ["odoo.http.SessionExpiredException", "werkzeug.exceptions.Forbidden"];

/** Return whether the user has to log in again. */
export function isSessionError(error) {
    return SESSION_ERRORS.includes(error.exceptionName);
}

/** Return whether the same request may succeed later. */
export function isPassing(error) {
    return error instanceof ConnectionLostError || isSessionError(error);
}
