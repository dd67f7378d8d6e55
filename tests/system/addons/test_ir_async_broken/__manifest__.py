{
    'name': 'Async Jobs Tests: a module whose installation fails',
    'category': 'Hidden/Tests',
    'author': 'The ir_async authors',
    'license': 'LGPL-3',
    'depends': ['test_ir_async_later'],
    'post_init_hook': 'fail',
}
