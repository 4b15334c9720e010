"""One pickle for each function or class that pickles were, or could be, made to call; none would do any harm."""

from tests.scan.corpus.sample import MARKER, Sample, call, name, start, strings, text

# module, name: of the standard library and of what stands beside models. Facts from CVEs, advisories and reading.
_NAMES = """
scipy.stats._continuous_distns.uniform_gen scipy.stats._distn_infrastructure.rv_continuous_frozen
os.system os.popen os.execv os.execvp os.spawnl os.spawnv os.posix_spawn os.putenv os.remove os.rename os.unlink
os.rmdir os.startfile os.fork posix.system posix.popen posix.execv posix.fork nt.system nt.startfile
subprocess.Popen subprocess.run subprocess.call subprocess.check_call subprocess.check_output subprocess.getoutput
subprocess.getstatusoutput commands.getoutput popen2.popen2 builtins.eval builtins.exec builtins.compile
builtins.getattr builtins.setattr builtins.delattr builtins.open builtins.__import__ builtins.globals
builtins.locals builtins.vars builtins.input builtins.breakpoint builtins.apply builtins.map builtins.filter
builtins.type builtins.super builtins.memoryview builtins.print builtins.help builtins.iter __builtin__.eval
__builtin__.exec __builtin__.apply __builtin__.getattr __builtin__.file __builtin__.execfile importlib.import_module
importlib.__import__ importlib.reload importlib.machinery.SourceFileLoader importlib._bootstrap._load_unlocked
imp.load_source imp.load_module imp.load_dynamic pkgutil.resolve_name pkgutil.get_data runpy.run_path
runpy.run_module runpy._run_code runpy._run_module_code zipimport.zipimporter zipapp.create_archive sys.exit
sys.settrace sys.setprofile sys.modules.get types.CodeType types.FunctionType types.ModuleType
code.InteractiveInterpreter code.InteractiveConsole code.interact code.InteractiveInterpreter.runcode
codeop.compile_command pickle.loads pickle.load pickle.Unpickler _pickle.loads cPickle.loads marshal.loads
marshal.load shelve.open dbm.open dill.loads cloudpickle.loads cloudpickle.cloudpickle._builtin_type
cloudpickle.cloudpickle._make_function joblib.load joblib.hashing.hash pandas.read_pickle pandas.eval
pandas.io.common.get_handle numpy.load functools.partial functools.reduce operator.attrgetter operator.itemgetter
operator.methodcaller operator.call itertools.starmap copyreg.add_extension copyreg.pickle atexit.register
signal.signal gc.get_objects inspect.getattr_static pty.spawn pty.fork pty._writen tty.setraw socket.socket
socket.create_connection socketserver.TCPServer ssl.get_server_certificate http.client.HTTPSConnection
http.server.HTTPServer urllib.request.urlopen urllib.request.urlretrieve ftplib.FTP smtplib.SMTP telnetlib.Telnet
imaplib.IMAP4 imaplib.IMAP4_stream poplib.POP3 nntplib.NNTP xmlrpc.client.ServerProxy requests.get requests.post
httpx.get aiohttp.client.ClientSession webbrowser.open webbrowser.get webbrowser.GenericBrowser antigravity.geohash
this.s timeit.timeit timeit.repeat timeit.Timer trace.Trace.run cProfile.run cProfile.runctx profile.run
profile.Profile.run profile.Profile.runctx pdb.run pdb.runeval pdb.Pdb bdb.Bdb.run bdb.Bdb.runeval
doctest.debug_script doctest.testfile unittest.main test.support.script_helper.assert_python_ok pydoc.locate
pydoc.pager pydoc.tempfilepager pydoc.pipepager pydoc.safeimport idlelib.run.Executive.runcode
idlelib.pyshell.ModifiedInterpreter.runcode idlelib.pyshell.ModifiedInterpreter.runcommand
idlelib.debugobj.ObjectTreeItem.SetText idlelib.calltip.Calltip.fetch_tip idlelib.calltip.get_entity
idlelib.autocomplete.AutoComplete.get_entity idlelib.autocomplete.AutoComplete.fetch_completions
lib2to3.pgen2.grammar.Grammar.loads lib2to3.pgen2.pgen.ParserGenerator.make_label
lib2to3.refactor.get_fixers_from_package ensurepip._run_pip ensurepip.bootstrap pip.main pip._internal.main
pip._internal.cli.main.main pip._vendor.distlib.scripts.ScriptMaker setuptools.setup setuptools.sandbox.run_setup
distutils.core.run_setup distutils.file_util.write_file distutils.file_util.copy_file distutils.dir_util.remove_tree
distutils.spawn.spawn site.main site.addsitedir site.execsitecustomize venv.create venv.EnvBuilder ctypes.CDLL
ctypes.cdll.LoadLibrary ctypes.PyDLL ctypes.windll ctypes.util._get_soname ctypes.util._findLib_gcc cffi.FFI
_ctypes.dlopen asyncio.create_subprocess_shell asyncio.unix_events._UnixSubprocessTransport._start asyncio.run
multiprocessing.Process multiprocessing.util.spawnv_passfds multiprocessing.popen_fork.Popen
concurrent.futures.ProcessPoolExecutor threading.Thread _thread.start_new_thread sched.scheduler shutil.rmtree
shutil.copy shutil.move shutil.chown tempfile.mktemp pathlib.Path.write_text pathlib.Path.unlink io.FileIO io.open
_io.FileIO _io.open codecs.open codecs.decode fileinput.FileInput linecache.getline logging.FileHandler
logging.config.listen logging.config._resolve logging.handlers.SocketHandler configparser.ConfigParser.read
sqlite3.connect tarfile.open zipfile.ZipFile bz2.open gzip.open lzma.open readline.read_init_file
readline.write_history_file rlcompleter.Completer platform.popen platform._syscmd_ver _osx_support._read_output
_osx_support._find_build_tool _aix_support._read_cmd_output _pyrepl.pager.pipe_pager uuid._get_command_stdout
uuid._popen nturl2path.url2pathname mailcap.findmatch cgitb.Hook getpass.unix_getpass curses.wrapper
turtle.write_docstringdict crypt.crypt torch.load torch.hub.load torch.hub._load_local torch.jit.load
torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline torch.utils._config_module.load_config
torch.utils.collect_env.run torch.utils.bottleneck.__main__.run_cprofile
torch.utils.bottleneck.__main__.run_autograd_prof torch.utils.data.datapipes.utils.decoder.basichandlers
torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression torch._dynamo.guards.GuardBuilder.get
torch._inductor.codecache.compile_file torch._inductor.codecache.PyCodeCache.load
torch.jit.unsupported_tensor_ops.execWrapper torch.serialization.load torch.storage._load_from_file
torch.distributed.rpc.rpc_sync torch.package.PackageImporter torch.ops.load_library torch.classes.load_library
torch.cuda._lazy_call torch._C._jit_pass_lint torch.onnx._internal.exporter._building.eval
torch.testing._internal.common_utils.run_tests numpy.f2py.crackfortran.getlincoef
numpy.f2py.crackfortran._eval_length numpy.f2py.crackfortran._eval_scalar numpy.f2py.crackfortran.param_eval
numpy.f2py.crackfortran.myeval numpy.testing._private.utils.runstring numpy.testing._private.utils.rundocs
numpy.distutils.exec_command.exec_command numpy.core._ufunc_reconstruct numpy._core._ufunc_reconstruct
numpy.fromfile numpy.memmap numpy.save numpy.lib.npyio.load numpy.lib._npyio_impl.load numpy.ctypeslib.load_library
numpy.compat.py3k.exec_mod_from_location scipy.io.loadmat scipy._lib._testutils.FPUModeChangeWarning
sklearn.datasets.load_files sklearn.utils._testing.TempMemmap sklearn.externals.joblib.load joblib.numpy_pickle.load
joblib.numpy_pickle_compat.ZNDArrayWrapper joblib.numpy_pickle_compat.load_compatibility joblib.memory.MemorizedFunc
joblib.parallel.Parallel transformers.AutoModel.from_pretrained transformers.pipeline
transformers.dynamic_module_utils.get_class_from_dynamic_module tensorflow.keras.models.load_model
tensorflow.load_library keras.models.load_model tensorflow.io.write_file tensorflow.py_function
xgboost.core._load_lib lightgbm.basic._LIB onnxruntime.InferenceSession huggingface_hub.snapshot_download yaml.load
yaml.unsafe_load jinja2.Template mako.template.Template numba.core.serialize._unpickle__CustomPickled sympy.sympify
sympy.parsing.sympy_parser.parse_expr django.core.management.execute_from_command_line flask.cli.main
fabric.Connection paramiko.SSHClient docker.from_env boto3.client IPython.start_ipython pytest.main nose.run
py.path.local tqdm.auto.tqdm.write PIL.Image.open matplotlib.pyplot.savefig gradio.Interface streamlit.cli.main
__main__.Payload model.Net dataset.__reduce__ sklearn.svm.system torch.nn.modules.os collections.namedtuple
collections.abc.Callable
"""
GADGETS = _NAMES.split()
SOME = GADGETS[::9]  # that are tried in every way of writing


def split(gadget: str) -> tuple[str, str]:
    """Module and name; a name with dots is one of a class."""
    parts = gadget.split(".")
    for index, part in enumerate(parts[:-1]):
        if index and part[:1].isupper():
            return ".".join(parts[:index]), ".".join(parts[index:])
    return ".".join(parts[:-1]), parts[-1]


def gadgets() -> list[Sample]:
    """A pickle for each gadget, of protocol 4; of some, in every other way that a pickle has to call something."""
    found = [Sample(f"gadget-{gadget}.pkl", call(*split(gadget)), "gadget") for gadget in GADGETS]
    for gadget in SOME:
        module, attribute = split(gadget)
        for protocol in (0, 1, 2, 3, 5):
            data = call(module, attribute, protocol=protocol)
            found.append(Sample(f"gadget-{gadget}-{protocol}.pkl", data, "gadget, other protocols"))
        whole = f"{module}\n{attribute}\n".encode()
        marker = b"V" + MARKER.encode() + b"\n"
        found += [
            Sample(f"inst-{gadget}.pkl", b"(" + marker + b"i" + whole + b".", "gadget, other instructions"),
            Sample(f"obj-{gadget}.pkl", b"(c" + whole + marker + b"o.", "gadget, other instructions"),
            Sample(
                f"newobj-{gadget}.pkl",
                start(4) + name(module, attribute) + strings((MARKER,)) + b"\x81.",
                "gadget, other instructions",
            ),
            Sample(
                f"newobj-ex-{gadget}.pkl",
                start(4) + name(module, attribute) + strings((MARKER,)) + b"}\x92.",
                "gadget, other instructions",
            ),
            Sample(
                f"build-{gadget}.pkl",
                start(4) + name(module, attribute) + b")\x81}" + text("cmd") + text(MARKER) + b"sb.",
                "gadget, other instructions",
            ),
            Sample(
                f"import-only-{gadget}.pkl", start(4) + name(module, attribute) + b".", "gadget, other instructions"
            ),
        ]
    return found
