{
    'name': 'Async Jobs Tests in the Browser',
    'category': 'Hidden/Tests',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['ir_async'],
    'data': ['views/test_async_web_views.xml'],
    'assets': {
        'web.assets_backend': ['test_ir_async_web/static/src/**/*'],
    },
}
