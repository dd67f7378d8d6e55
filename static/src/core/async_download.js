// Downloads of files that jobs make.
/**
 * Call a method of the server that starts a job to make a file. Download the file as if there were no job.
 *
 * If it takes a while, the page is freed, and the file is offered under *Background jobs*.
 *
 * @param {import("../services/async_job_service").AsyncJobService} asyncJob
 * @param {Object} call as for `asyncRpc`
 * @returns {Promise<void>} resolved once the file is there or the page is free
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
                asyncJob.hidden.delete(job.id); // list the job: its file is still there
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
                    throw error; // nobody waits any more, but the user must see it
                }
                reject(error);
            });
    });
}
