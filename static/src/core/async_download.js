/**
 * Call a method of the server that has a job make a file, and download the file, as if there were no job.
 *
 * When that takes a while, the user is not kept waiting: the file ends up under *Background jobs*.
 *
 * @param {import("../services/async_job_service").AsyncJobService} asyncJob
 * @param {Object} call as for `asyncRpc`
 * @returns {Promise<void>} resolved once the file is there, or the user goes on with something else
 */
export function asyncDownload(asyncJob, call) {
    return new Promise((resolve, reject) => {
        let isInBackground = false;
        const onBackground = () => {
            isInBackground = true;
            resolve();
        };
        const onEnd = async (job) => {
            if (job.inBackground) {
                return; // a toast offers the file
            }
            try {
                await asyncJob.open(job.id);
            } catch (error) {
                asyncJob.hidden.delete(job.id); // the file is there still
                throw error;
            }
            await asyncJob.dismiss(job.id);
            resolve();
        };
        asyncJob
            .asyncRpc(call, { onBackground, isHidden: true })
            .then(onEnd)
            .catch((error) => {
                if (isInBackground) {
                    throw error; // nobody waits any more, but the user must learn of it
                }
                reject(error);
            });
    });
}
