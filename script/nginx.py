"""nginx before a prefork server, as in production: one site for its two ports."""

import shutil
import subprocess


class Nginx:
    """nginx, from :meth:`start` until :meth:`stop` or the end of this process.

    :param pathlib.Path folder: the folder for its files
    :param int port: the port on which it listens
    :param int http_port: the port of Odoo's HTTP workers
    :param int gevent_port: the port of Odoo's websockets
    """

    CONF = """
        daemon off;
        pid {folder}/nginx.pid;
        error_log {folder}/error.log;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            server {{
                listen 127.0.0.1:{port};
                proxy_read_timeout 600s;
                proxy_set_header Host $http_host;
                location / {{
                    proxy_pass http://127.0.0.1:{http_port};
                }}
                location /websocket {{
                    proxy_pass http://127.0.0.1:{gevent_port};
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                }}
            }}
        }}
    """

    def __init__(self, folder, port, http_port, gevent_port):
        self.folder = folder
        self.port = port
        self.process = None
        (folder / 'nginx.conf').write_text(
            self.CONF.format(folder=folder, port=self.port, http_port=http_port, gevent_port=gevent_port)
        )

    def start(self):
        self.process = subprocess.Popen(
            [
                'setpriv',
                '--pdeathsig',
                'QUIT',
                shutil.which('nginx', path='/usr/sbin:/usr/bin'),
                '-p',
                self.folder,
                '-c',
                'nginx.conf',
                '-e',
                'error.log',
            ]
        )

    def stop(self):
        if self.process:
            self.process.terminate()  # this also cuts all connections
            self.process.wait()
            self.process = None
